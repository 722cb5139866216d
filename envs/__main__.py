"""``python -m envs`` is the console command."""

import sys

from envs.main import main

sys.exit(main())
