"""The command line: click commands and what they draw; nothing here decides anything."""
