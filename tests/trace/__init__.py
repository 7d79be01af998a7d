"""What happened to messages: the history, and `mailgate trace`."""
