"""The official repositories' functions, imported as they are from clones that the user made; nothing of theirs is here.

Their modules are called `utils`, `model`, `dataset` in all three, so each process imports from one clone alone (see
`side_by_side.py`). What they import and is not installed is replaced by an empty stand-in, for the functions that can do
without; the first use of a stand-in is an error that names the package.
"""

import importlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from ucvgl.errors import InputError


@dataclass(frozen=True)
class Repository:
    """An official repository."""

    argument: str  # of the command line
    url: str
    marker: str  # a file by which a clone is known


GITHUB = "https://github.com"
REPOSITORIES = {
    "UCVGL": Repository("--ucvgl", f"{GITHUB}/liguopeng0923/UCVGL", "CFP/GeometricProjection/utils.py"),
    "Sample4Geo": Repository("--sample4geo", f"{GITHUB}/Skyy93/Sample4Geo", "sample4geo/trainer.py"),
    "VG-SSL": Repository("--vg-ssl", f"{GITHUB}/arplaboratory/VG-SSL", "model/byol/byol_pytorch.py"),
}


class CannotRun(Exception):
    """An official function cannot run here; the message says why, in words."""


class Absent(ModuleNotFoundError):
    """A stand-in for a package that is not installed was used."""


def check_clone(name: str, folder: Path) -> None:
    """Raises InputError unless the folder is a clone of the repository of this name."""
    repository = REPOSITORIES[name]
    if not (folder / repository.marker).is_file():
        here = sorted(path.name for path in folder.iterdir())[:5] if folder.is_dir() else []
        raise InputError(
            f"{repository.argument} {folder}",
            expected=f"a clone of {repository.url}, with {repository.marker}",
            found=f"a folder of {', '.join(here) or 'no file'}" if folder.is_dir() else "no folder",
            todo=f"Run `git clone {repository.url}` and give the folder it makes.",
        )


def commit_of(folder: Path) -> str:
    """The clone's commit, '-dirty' behind it if files were changed; in words where git cannot tell."""
    if not (folder / ".git").exists():  # git would name the repository around it
        return "no git checkout"
    git = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    return subprocess.run(git, capture_output=True, text=True, timeout=60).stdout.strip() or "unknown commit"


class Clone:
    """A clone in this process; there can be one.

    Args:
        folder: of the clone.

    Attributes:
        stubs: packages that were replaced by stand-ins, in the order of their import.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.stubs: list[str] = []
        self._finder = _StandIns(self.folder, self.stubs)
        sys.meta_path.append(self._finder)  # asked when no other knows the module
        sys.path.insert(0, str(self.folder))

    def close(self) -> None:
        """Takes the clone off the path again, and its modules out of memory."""
        sys.meta_path.remove(self._finder)
        sys.path[:] = [entry for entry in sys.path if not Path(entry).is_relative_to(self.folder)]
        known = [n for n, module in sys.modules.items() if isinstance(module, _StandIn) or self._has(module)]
        for name in known:
            del sys.modules[name]

    def _has(self, module: ModuleType) -> bool:
        file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
        return file is not None and Path(file).resolve().is_relative_to(self.folder)

    def module(self, name: str, folder: str = ".") -> ModuleType:
        """A module of the clone.

        Args:
            name: with dots, as the clone's own code imports it.
            folder: inside the clone, whose scripts import from there.

        Raises:
            CannotRun: it is not there, or does not import.
        """
        if folder != ".":
            sys.path.insert(0, str(self.folder / folder))
        file = (Path(folder) / name.replace(".", "/")).as_posix()
        if not any((self.folder / f"{file}{end}").exists() for end in (".py", "/__init__.py")):
            raise CannotRun(f"the clone has no {file}.py")
        try:
            module = importlib.import_module(name)
        except (Exception, SystemExit) as error:
            raise CannotRun(f"{name} does not import: {in_words(error)}") from error
        if not self._has(module):
            raise CannotRun(f"{name} was imported from elsewhere, {getattr(module, '__file__', 'not from a file')}")
        return module

    def get(self, module: str, name: str, folder: str = ".") -> Callable[..., Any]:
        """A function or class of one of the clone's modules; CannotRun as `module`, or where it has none."""
        found = getattr(self.module(module, folder), name, None)
        if found is None or isinstance(found, ModuleType):
            raise CannotRun(f"the clone's {module} has no {name}; was this another revision?")
        return found


class _StandIn(ModuleType):
    """An empty module, whose every name is a class that cannot be made or called."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        package = self.__name__.partition(".")[0]

        def refuse(*_: object, **__: object) -> None:
            raise Absent(f"needs the package {package}, which is not installed", name=package)

        return type(name, (), {"__init__": refuse, "__module__": self.__name__})


class _StandIns(MetaPathFinder, Loader):
    """Makes them for what the clone's own files import, and for nobody else: libraries try imports, too."""

    def __init__(self, folder: Path, stubs: list[str]) -> None:
        self.folder, self.stubs = folder, stubs

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A stand-in, unless the package is there in part or somebody else asks."""
        top = fullname.partition(".")[0]
        frame: Any = sys._getframe(1)
        while frame is not None and "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        inside = frame is not None and Path(frame.f_code.co_filename).is_relative_to(self.folder)
        if not inside or (top != fullname and not isinstance(sys.modules.get(top), _StandIn)):
            return None
        if (self.folder / top).exists():  # its own: what is missing there is no package
            return None
        if top not in self.stubs:
            self.stubs.append(top)
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """An empty one."""
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


def in_words(error: BaseException) -> str:
    """Why an official function did not run, in one line."""
    text = " ".join(str(error).split())[:300]
    if isinstance(error, CannotRun | Absent):
        return text
    if isinstance(error, ModuleNotFoundError):
        return f"needs the package {error.name}, which is not installed"
    if any(word in text for word in ("CUDA", "cuda", "NVIDIA")):
        return f"needs CUDA ({text})"
    return f"{type(error).__name__}: {text}".removesuffix(": ")
