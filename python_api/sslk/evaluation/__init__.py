"""One evaluation of many models: a plan of commands, carried out step by step, resumable."""
