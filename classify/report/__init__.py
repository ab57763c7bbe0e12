"""The report: one page that shows what a run's files hold. It computes nothing but how to show it."""
