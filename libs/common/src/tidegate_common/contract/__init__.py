"""What crosses a process boundary. Pure: no input or output happens here."""
