"""A real pseudo-terminal with a program in it, as its controlling terminal."""

import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
import time


class Terminal:
    """``command`` in a pseudo-terminal; `output` is everything it has written so far, as bytes."""

    def __init__(self, command, columns=100, lines=30, env=None):
        self.master, slave = os.openpty()
        self.slave = os.ttyname(slave)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

        def become_controlled():
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, preexec_fn=become_controlled,
            env={**os.environ, "TERM": "xterm-256color", **(env or {})}, close_fds=True, pass_fds=(slave,),
        )  # fmt: skip
        os.close(slave)
        self.output = b""

    def read(self, seconds=0.1):
        """Read what comes within ``seconds``; False when the other end is closed."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self.master], [], [], left)[0]:
                try:
                    data = os.read(self.master, 65536)
                except OSError:
                    return False
                if not data:
                    return False
                self.output += data
        return True

    def expect(self, text, seconds=60):
        """Wait until ``text`` has been written."""
        deadline = time.monotonic() + seconds
        while text.encode() not in self.output:
            assert time.monotonic() < deadline, (text, self.output[-2000:])
            if not self.read(0.05):
                assert text.encode() in self.output, (text, self.output[-2000:])

    def send(self, keys):
        os.write(self.master, keys.encode() if isinstance(keys, str) else keys)

    def fill(self):
        """Write to it, as the program does, until it takes nothing more; who reads makes room again."""
        slave = os.open(self.slave, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        refused = 0
        while refused < 10:  # the kernel moves what it has from one buffer to the next meanwhile
            try:
                os.write(slave, b" " * 256)
                refused = 0
            except BlockingIOError:
                refused += 1
                time.sleep(0.05)
        os.close(slave)

    def interrupt(self):
        """Ctrl-C."""
        self.send(b"\x03")

    def hang_up(self):
        """The connection is gone: the kernel sends SIGHUP."""
        os.close(self.master)
        self.master = -1

    def wait(self, seconds=60):
        """The exit code, everything read."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.output[-2000:]
            if self.master >= 0:
                self.read(0.05)
            else:
                time.sleep(0.05)
        if self.master >= 0:
            self.read(0.05)
        return self.process.returncode

    def close(self):
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()
        if self.master >= 0:
            os.close(self.master)
            self.master = -1
