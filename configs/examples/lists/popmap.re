# Perdition's popmap.re: expression and substitute. A backslash is taken off unless it stands in single quotes.
'^([^@]+)@([a-z]+)\.hosting\.example$': $1@pop.$2.example.net
^[a-m]: 10.20.0.12
^[n-z]: 10.20.0.13:110
