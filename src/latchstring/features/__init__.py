"""What an application switches on. Each folder can be deleted; none knows another."""
