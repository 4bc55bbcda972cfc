"""`moshivis doctor`: what a conversation needs on this machine, what of it is fine, and what mends the rest."""
