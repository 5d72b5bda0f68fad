"""Read from an engine's log how far its launch is: minutes of silence are taken for a hang. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from provision.catalog.engines import LogRow


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What a launch is busy with. `percent` is that of the progress bar it shows, where it shows one."""

    name: str
    text: str
    percent: int | None = None

    def __str__(self) -> str:
        return self.text if self.percent is None else f"{self.text} ({self.percent} %)"


class LaunchLog:
    """What the lines so far say: the phase, whether the server is ready, and whether it is lost.

    A phase never goes back: the workers of several GPUs write into one log, each at its own pace.
    """

    def __init__(self, row: LogRow) -> None:
        self._row = row
        self._current = 0
        self._percent: int | None = None
        self._ready = re.compile(row.ready)
        self._death = [re.compile(pattern) for pattern in row.death]
        self._patterns = [re.compile(phase.pattern) if phase.pattern else None for phase in row.phases]
        self._progress = re.compile(row.progress) if row.progress else None
        self._model = re.compile(row.native_model) if row.native_model else None
        self.ready = False
        self.death: str | None = None
        self.model_class: str | None = None

    @property
    def phase(self) -> Phase:
        row = self._row.phases[self._current]
        return Phase(name=row.name, text=row.text, percent=self._percent)

    @property
    def fell_back(self) -> bool:
        """Whether the engine runs the model by a slower, general implementation instead of its own."""
        return self.model_class is not None and self.model_class == self._row.fallback_model

    def feed(self, line: str) -> bool:
        """Take in a line; whether the phase (or its percentage) is another now."""
        before = (self._current, self._percent)
        if self.death is None and any(pattern.search(line) for pattern in self._death):
            self.death = line
        if self._ready.search(line):
            self.ready = True
        if self._model and (found := self._model.search(line)):
            self.model_class = found[1]
        for index in range(len(self._patterns) - 1, self._current, -1):
            pattern = self._patterns[index]
            if pattern and pattern.search(line):
                self._current, self._percent = index, None
                break
        if self._progress and (found := self._progress.search(line)):
            self._percent = min(100, int(found[1]))
        return (self._current, self._percent) != before
