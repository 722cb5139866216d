"""``python -m planner`` is the console command."""

import sys

from planner.main import main

sys.exit(main())
