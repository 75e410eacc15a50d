"""What both ends of tunnels have in common."""
