"""Published attacks, one file per paper. They are planted only in models that the toolkit trains itself."""
