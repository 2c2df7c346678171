"""`python -m recurra` is the command `recurra`."""

import signal


def main() -> None:
    """The command. Until its parts are read, Ctrl-C ends it without words: nothing has begun."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from recurra.cli import main as run

    signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
