"""The command line: one small module per group of commands; `render` draws, `follow` watches, `exits` ends."""
