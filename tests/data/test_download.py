"""A file that has its name is a whole one, whatever the mirrors do."""

import gzip
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from mirror import cut, first_then, reset, status, whole

from tinycompress.data import DownloadError
from tinycompress.data.download import fetch

CONTENT = gzip.compress(bytes(range(256)) * 400, mtime=0) + bytes(200_000)
NAME = "digits.gz"


def is_content(path):
    if path.read_bytes() != CONTENT:
        raise ValueError(f"{path}: is another file")


@pytest.fixture
def get(mirror, tmp_path, sleeps):
    def get(*urls, verify=is_content, **options):
        options = {"max_bytes": len(CONTENT), "timeout": 5.0, **options}
        return fetch(NAME, urls or [mirror.url], tmp_path / "new" / "folder", verify, **options)

    return get


def left_behind(tmp_path):
    return sorted(p.name for p in tmp_path.rglob("*") if p.is_file())


@pytest.mark.parametrize("announce", [True, False])
def test_a_good_file_gets_its_name(get, mirror, tmp_path, announce, capfd):
    mirror.answers["/" + NAME] = whole(CONTENT, announce)
    path = get()
    assert path == tmp_path / "new" / "folder" / NAME
    assert path.read_bytes() == CONTENT
    assert left_behind(tmp_path) == [NAME]
    assert capfd.readouterr() == ("", "")  # a library does not print


def test_a_progress_bar_is_drawn_on_request(get, mirror, capfd):
    mirror.answers["/" + NAME] = CONTENT
    get(progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert NAME in err


def test_a_file_that_comes_unpacked_is_not_called_packed(get, mirror):
    mirror.answers["/" + NAME] = b"\0\0\x08\x01 unpacked"
    assert get(verify=lambda path: None).name == "digits"


BROKEN = {
    "truncated": (cut(CONTENT, 70_000), "ended after 70,000 of"),
    "empty": (b"", "what came: is another file"),
    "corrupted": (CONTENT[:-1] + b"x", "what came: is another file"),
    "too long": (whole(CONTENT + b"x", announce=False), "sends more than"),
    "reset": (reset, "Connection|RemoteDisconnected"),
    "500": (status(500), "HTTP 500 Internal Server Error"),
    "503": (status(503), "HTTP 503"),
    "429": (status(429), "HTTP 429"),
    "not http": (lambda handler: handler.wfile.write(b"hello\r\n\r\n"), "BadStatusLine"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_mirror_is_asked_again_and_explained(get, mirror, tmp_path, sleeps, how):
    mirror.answers["/" + NAME], reason = BROKEN[how]
    with pytest.raises(DownloadError, match=rf"could not download {NAME}:\n  .*: .*({reason})"):
        get()
    assert len(mirror.asked) == 3
    assert sleeps == [1, 2]
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("how", BROKEN)
def test_the_next_mirror_is_asked_at_once(get, mirror, other_mirror, tmp_path, sleeps, how):
    mirror.answers["/" + NAME] = BROKEN[how][0]
    other_mirror.answers["/" + NAME] = CONTENT
    assert get(mirror.url, other_mirror.url).read_bytes() == CONTENT
    assert (len(mirror.asked), len(other_mirror.asked), sleeps) == (1, 1, [])
    assert left_behind(tmp_path) == [NAME]


@pytest.mark.parametrize("code", [403, 404, 410])
def test_a_final_no_is_not_asked_twice(get, mirror, sleeps, code):
    mirror.answers["/" + NAME] = status(code)
    with pytest.raises(DownloadError, match=f"HTTP {code}"):
        get()
    assert len(mirror.asked) == 1
    assert sleeps == []


def test_a_mirror_that_recovers_is_good_enough(get, mirror, sleeps):
    mirror.answers["/" + NAME] = first_then(reset, cut(CONTENT, 10), CONTENT)
    assert get().read_bytes() == CONTENT
    assert sleeps == [1, 2]


def test_silence_ends_after_the_timeout(get, mirror, other_mirror):
    mirror.answers["/" + NAME] = mirror.stall(CONTENT)
    other_mirror.answers["/" + NAME] = CONTENT
    assert get(mirror.url, other_mirror.url, timeout=0.2).read_bytes() == CONTENT
    with pytest.raises(DownloadError, match=r"no answer within 0\.2 seconds"):
        get(timeout=0.2, rounds=1)


def test_a_closed_port_and_an_unknown_host_are_told_apart(get, sleeps, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DownloadError, match="ConnectionRefusedError"):
        get(f"http://127.0.0.1:{port}/")
    sleeps.clear()

    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(DownloadError, match=r"cannot be looked up \(no network\?\)"):
        get("http://nowhere.invalid/", "http://neither.invalid/")
    assert sleeps == []  # without a network, nobody waits


def test_an_interrupt_leaves_nothing_behind(get, mirror, tmp_path):
    mirror.answers["/" + NAME] = CONTENT

    def interrupt(path):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(verify=interrupt)
    assert left_behind(tmp_path) == []


def test_a_file_that_was_there_stays_until_a_whole_one_replaces_it(get, mirror, tmp_path):
    old = tmp_path / "new" / "folder" / NAME
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old")
    mirror.answers["/" + NAME] = cut(CONTENT, 100)
    with pytest.raises(DownloadError):
        get()
    assert old.read_bytes() == b"old"
    mirror.answers["/" + NAME] = CONTENT
    assert get().read_bytes() == CONTENT


def test_two_at_once_both_end_with_the_whole_file(get, mirror, tmp_path):
    mirror.answers["/" + NAME] = CONTENT
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: get(), range(4)))
    assert {p.read_bytes() for p in paths} == {CONTENT}
    assert left_behind(tmp_path) == [NAME]


def test_a_folder_that_cannot_be_made_is_not_the_mirrors_fault(mirror, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file") as caught:
        fetch(NAME, [mirror.url], tmp_path / "file" / "below", is_content, max_bytes=9)
    assert not isinstance(caught.value, DownloadError)
    assert mirror.asked == []
