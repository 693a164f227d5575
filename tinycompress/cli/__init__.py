"""The command line: each command is the thin face of one verb of the library.

``app.py`` lists the commands, ``common.py`` is what they share; each other file is one command.
"""

from tinycompress.cli.app import app as app, main as main
