"""How sure a number is: intervals by bootstrap and influence values, and what small data do not allow to say."""
