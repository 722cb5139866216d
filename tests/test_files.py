"""Files that are whole or not at all, whatever already lies where they go."""

import os
import signal
import threading

import pytest

from groundwork.files import interrupt_waits, write_atomically


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_atomically(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


@pytest.mark.parametrize("fails", [False, True])
def test_ctrl_c_comes_after_what_it_must_not_disturb_and_in_place_of_its_error(fails):
    done, before = [], signal.getsignal(signal.SIGINT)

    @interrupt_waits()
    def read():
        os.kill(os.getpid(), signal.SIGINT)
        done.append("whole")
        if fails:
            raise ValueError("damaged")

    with pytest.raises(KeyboardInterrupt):
        read()
    assert done == ["whole"]
    assert signal.getsignal(signal.SIGINT) is before
    other = threading.Thread(target=lambda: done.append(interrupt_waits().__enter__()))
    other.start()
    other.join()
    assert done == ["whole", None]


def test_a_pipe_is_written_to(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_text()))
    reader.start()
    write_atomically(tmp_path / "pipe", "through")
    reader.join(10)
    assert got == ["through"]
    assert not (tmp_path / "pipe").is_file()


def test_a_folder_in_the_way_is_an_error_and_leaves_nothing_behind(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_atomically(tmp_path / "folder", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
