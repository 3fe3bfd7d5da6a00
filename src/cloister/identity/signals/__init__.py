"""Security events of others (OpenID Shared Signals 1.0, CAEP 1.0): what a verified token says, about whom, and how risk scores age.

Owns the reading of events and the arithmetic of risk. Never looks anything up. Called by the exchange's receiver and by whoever makes facts.
"""
