module peers

go 1.23

require github.com/dunglas/mercure v0.16.0
