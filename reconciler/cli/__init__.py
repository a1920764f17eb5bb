"""The command line, `plumb`: one file per command, none imported before it is used."""
