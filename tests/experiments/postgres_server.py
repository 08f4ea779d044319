"""A PostgreSQL server of its own, on loopback, for as long as a test module runs."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

USER, PASSWORD = "ada", "s3cret/p@ss"
QUOTED = "s3cret%2Fp%40ss"


def missing() -> str:
    """Why no server can be started here; empty where one can."""
    for program in ("initdb", "pg_ctl", "psql"):
        if shutil.which(program) is None:
            return f"no `{program}` on this machine"
    return "" if os.getuid() or _account() else "PostgreSQL refuses root, and there is no other account"


def _account() -> str | None:
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    return None


@dataclass
class Server:
    """A server that asks for a password."""

    folder: Path
    port: int

    def url(self, database: str = "postgres", password: str = QUOTED) -> str:
        return f"postgresql://{USER}:{password}@127.0.0.1:{self.port}/{database}"

    def sql(self, line: str, database: str = "postgres") -> str:
        """What `psql` answers, not what the project's own driver would."""
        environment = {**os.environ, "PGPASSWORD": PASSWORD}
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-d", database]
        return subprocess.run(
            ["psql", "-Atqc", line, *where], env=environment, capture_output=True, text=True, check=True
        ).stdout.strip()

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories= -c fsync=off"
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-t", "120", "-o", options, "-l", "log", "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-m", "immediate", "stop")

    def create(self) -> None:
        secret = self.folder / "secret"
        secret.write_text(PASSWORD)
        if os.getuid() == 0 and (account := _account()):
            shutil.chown(self.folder, account)
            shutil.chown(secret, account)
        how = ["-U", USER, f"--pwfile={secret}", "--auth=scram-sha-256", "--no-sync", "--locale=C", "-E", "UTF8"]
        self._run("initdb", "-D", str(self.folder / "data"), *how)

    def _run(self, *command: str) -> None:
        account = _account() if os.getuid() == 0 else None
        # Not its output by a pipe: the server would keep it open.
        with (self.folder / "out").open("a") as out:
            subprocess.run(
                command,
                check=True,
                cwd=self.folder,
                stdout=out,
                stderr=out,
                user=account,
                timeout=180,
                extra_groups=None,
            )


@contextmanager
def server() -> Iterator[Server]:
    """A server that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="equipoise-pg-") as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        found = Server(Path(folder), free.getsockname()[1])
        free.close()
        found.create()
        found.start()
        try:
            yield found
        finally:
            with suppress(subprocess.CalledProcessError):  # a test may have stopped it
                found.stop()
