"""``python -m tinycompress``: the command line, where the program is not on the path."""

from tinycompress.cli import main

if __name__ == "__main__":
    main()
