"""The commands of ``cairn-site``, by what they are about.

They parse, call and print; what is done lives in the rooms beside, which each
command imports when it runs: a command that is asked little answers soon, and a
courier's machine needs none of the worker's packages, nor the other way round.
The agent's own commands live with the agent, in ``site_client.agent_app``.
"""
