"""The run cache: run once, loaded after; what a kill leaves; damaged and foreign folders; two processes at once."""

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ucvgl.errors import InputError
from ucvgl.lab.stages import run_stage, stage_folder, stage_key


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1


@dataclass(frozen=True)
class Config:
    sizes: tuple[int, ...] = (1, 2)
    inner: Inner = field(default_factory=Inner)
    folder: Path = Path("somewhere")


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def folder_of(stage="intra-view", config=None, data_id="world"):
    return stage_folder(stage_key(stage, config or Config(), data_id))


class Stage:
    """A computation that counts its calls, writes a file and may be killed after that."""

    def __init__(self, numbers=None, killed=0):
        self.numbers, self.killed, self.calls = numbers or {"r_at_1": 12.5}, killed, 0

    def compute(self, folder):
        self.calls += 1
        with (folder / "weights").open("a") as file:
            file.write(f"{self.calls} ")
        if self.calls <= self.killed:
            raise KeyboardInterrupt
        return self.numbers

    def run(self):
        return run_stage("intra-view", Config(), "world", self.compute)


def test_a_stage_is_run_once_and_loaded_after(capsys):
    stage = Stage({"r_at_1": 12.5, "rows": ({"epoch": 0}, {"epoch": 1}), "best": None})
    one, two = stage.run(), stage.run()
    assert (stage.calls, one.loaded, two.loaded, one.resumed) == (1, False, True, False)
    assert one.numbers == two.numbers == {"r_at_1": 12.5, "rows": [{"epoch": 0}, {"epoch": 1}], "best": None}
    name = folder_of().name
    assert capsys.readouterr().out.splitlines() == [f"{name}: ran in 0 s", f"{name}: loaded (ran in 0 s)"]
    assert {path.name for path in one.folder.iterdir()} == {"config.json", "result.json", "weights"}


def test_each_stage_setting_and_data_set_has_a_folder_of_its_own():
    """If the first line fails, everybody's stages run again: raise FORMAT on purpose, or leave the key alone."""
    assert folder_of(config=Inner()).name == "intra-view-e69440d975a7"
    configs = Config(), Config(folder=Path()), Config(inner=Inner(0.2)), type("OfAnotherName", (Config,), {})()
    folders = [
        *(folder_of(config=each) for each in configs),
        folder_of("cross-view"),
        folder_of(data_id="cvusa-123456"),
    ]
    assert len({path.name.rsplit("-", 1)[1] for path in folders}) == len(folders)
    assert folder_of(config=Config(sizes=[1, 2])) == folders[0]  # a list or a tuple: the same JSON


def test_a_killed_stage_goes_on_from_what_it_wrote_but_not_with_other_settings(runs, capsys):
    stage, name = Stage(killed=2), folder_of().name
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            stage.run()
        assert not folder_of().exists()
    path = runs / f".{name}.partial" / "config.json"
    begun = path.read_text()
    path.write_text(begun.replace('"rate": 0.1', '"rate": 0.3'))
    with pytest.raises(InputError, match=r"settings that its name does not stand for, or no results. Delete"):
        stage.run()
    path.write_text(begun)
    done = stage.run()
    assert (done.folder / "weights").read_text() == "1 2 3 "
    assert capsys.readouterr().out == f"{name}: ran in 0 s, its last part after a stop\n"
    assert {path.name for path in runs.iterdir()} == {f".{name}.lock", name}
    assert done.resumed
    assert stage.run().resumed


@pytest.mark.parametrize(
    ("file", "content"),
    [("result", None), ("result", b"{"), ("result", b"[]"), ("result", b"\xff"), ("config", None), ("config", b"null")],
)
def test_a_damaged_folder_is_named_and_to_be_deleted(file, content):
    stage = Stage()
    folder = stage.run().folder
    (folder / f"{file}.json").unlink()
    if content is not None:
        (folder / f"{file}.json").write_bytes(content)
    with pytest.raises(InputError, match="Delete the folder; the stage is then run again") as caught:
        stage.run()
    assert str(folder) in str(caught.value)
    assert stage.calls == 1


def test_a_second_one_waits_for_the_first_and_loads(capfd):
    """Two threads stand for two processes: the lock is held by the open file, not by the process."""
    stage, plain, told, done = Stage(), Stage.compute, [], []

    def slow(folder):
        threads[1].start()
        end = time.monotonic() + 60
        while "another process runs intra-view-" not in "".join(told) and time.monotonic() < end:
            told.append(capfd.readouterr().err)
            time.sleep(0.01)
        return plain(stage, folder)

    stage.compute = slow
    threads = [threading.Thread(target=lambda: done.append(stage.run())) for _ in range(2)]
    threads[0].start()
    for thread in threads:
        thread.join(60)
    assert "another process runs intra-view-" in "".join(told)
    assert (stage.calls, sorted(result.loaded for result in done)) == (1, [False, True])
