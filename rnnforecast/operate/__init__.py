"""Leave it to cron. Standard library only."""
