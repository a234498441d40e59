"""What the end-to-end tests are made of: hosts, programs, packets, and what is expected of them."""
