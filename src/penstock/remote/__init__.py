"""Task runs that leave this process: packed here, executed there, reported back."""
