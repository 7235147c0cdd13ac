"""Who is connected, and what each of them gets. Knows neither NATS nor HTTP."""
