"""What turns settings into running bots: adapters chosen, processes started, watched and stopped."""
