"""Programs at the exchange: their tokens verified, whom they act for, and their end when what vouched for them ends.

Owns enrolment by token, delegations and the sweep. Never decides access. Called by the reception, the service and the API.
"""
