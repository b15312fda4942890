"""`tidegate redirect`: sends connections of programs that know of no proxy to the gateway.

    plan       what to redirect, checked
    nft        the plan as an nftables script
    iptables   the plan as input of iptables-restore
    host       runs the tools, in a network namespace where asked
    commands   the verbs

What is put in place is found again by its name alone, so `remove` needs no file of ours.
"""
