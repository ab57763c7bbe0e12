"""Models of pooled features, one by one: baselines, heads, how each is fitted alone, saved and explained."""
