"""Stress of AI answers: jobs that must end once and whole, whatever happens to those who run and watch them."""
