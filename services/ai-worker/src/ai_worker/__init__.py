"""The AI worker of Tidegate: takes jobs from the work queue and writes what handlers yield as events."""
