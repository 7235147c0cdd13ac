"""Who a request comes from: tokens, keys, tickets, and what limits them."""
