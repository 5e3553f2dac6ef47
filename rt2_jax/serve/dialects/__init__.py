"""What clients speak: each dialect turns bytes into observations, and answers into bytes; none touches a socket."""
