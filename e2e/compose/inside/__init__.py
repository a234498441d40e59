"""Programs that run inside the containers, where only they are mounted."""
