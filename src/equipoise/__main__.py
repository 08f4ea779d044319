"""`python -m equipoise` is the command `equipoise`."""

from __future__ import annotations

from equipoise.cli.main import main

raise SystemExit(main())
