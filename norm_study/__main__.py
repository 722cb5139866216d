"""``python -m norm_study`` is the console command."""

import sys

from norm_study.main import main

sys.exit(main())
