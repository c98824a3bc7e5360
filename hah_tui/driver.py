"""What is typed, as Textual reads it, but that a lone escape is a key after ESCDELAY: Textual looks for that only when
nothing has come for 100 ms, which is felt at every way back."""

from __future__ import annotations

import os
import select
from codecs import getincrementaldecoder

from textual import constants
from textual._xterm_parser import XTermParser
from textual.drivers.linux_driver import LinuxDriver

ROUND_SECONDS = 0.1  # in which the end is noticed
ESCAPE = "\x1b"


class Driver(LinuxDriver):
    """Textual's own, with another loop of its thread."""

    def run_input_thread(self) -> None:
        """Read until the app ends."""
        parser, decode, patience = XTermParser(self._debug), getincrementaldecoder("utf-8")().decode, ROUND_SECONDS
        while not self.exit_event.is_set():
            ready, patience = select.select([self.fileno], [], [], patience)[0], ROUND_SECONDS
            if ready and (text := decode(os.read(self.fileno, 4096))):
                patience = constants.ESCAPE_DELAY if text.endswith(ESCAPE) else ROUND_SECONDS
                for event in parser.feed(text):
                    self.process_message(event)
            for event in parser.tick():
                self.process_message(event)
