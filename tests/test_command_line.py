import signal
import subprocess
import sys
import time

from groundwork.command_line import INTERRUPTED, run_command

SWALLOWS = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
except BaseException:
    pass
"""


def test_an_import_that_swallows_ctrl_c_delays_it_and_no_more(tmp_path, monkeypatch, capsys):
    (tmp_path / "swallows_ctrl_c.py").write_text(SWALLOWS)
    monkeypatch.syspath_prepend(str(tmp_path))
    reached = []

    def command(argv):
        import swallows_ctrl_c  # noqa: F401

        reached.append("the import's end")
        time.sleep(10)
        reached.append("the command's end")

    # A shell's background jobs ignore Ctrl-C; this one shall hear of it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGALRM)]
    assert run_command(command) == INTERRUPTED
    sys.modules.pop("swallows_ctrl_c", None)
    assert reached == ["the import's end"]
    assert capsys.readouterr().err == "interrupted\n"
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGALRM)] == handlers
    signal.signal(signal.SIGINT, before)


def test_what_ctrl_c_left_half_made_is_thrown_away_unheard():
    program = """
import sys
from groundwork.command_line import run_command
class Bar:
    def __init__(self):
        raise KeyboardInterrupt
    def __del__(self):
        self.position
def command(argv):
    Bar()
sys.exit(run_command(command))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (130, "interrupted\n")


def test_ctrl_c_that_python_drops_in_a_finalizer_still_interrupts():
    program = """
import os, signal, sys, time
from groundwork.command_line import run_command
signal.signal(signal.SIGINT, signal.default_int_handler)
class Held:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
def command(argv):
    Held()
    time.sleep(20)
sys.exit(run_command(command))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=15)
    assert (ended.returncode, ended.stderr) == (130, "interrupted\n")
