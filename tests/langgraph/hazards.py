"""What the fuzzer is to come upon, and what it lets pass: one row per statement of LangGraph's contract.

A row's first word names the statement: s01 to s52, and d01 to d10 of DeltaChannel's.
"""

from __future__ import annotations

HAZARDS = {
    "s01 a thread that is a number",
    "s02 no namespace in get",
    "s02 no namespace in list",
    "s03 namespaces that share a prefix",
    "s03 a namespace longer than a key",
    "s05 no parent",
    "s05 a parent that is not there",
    "s06 the latest is not the last put",
    "s07 before of another namespace",
    "s07 before of an id that was never put",
    "s08 an id that is no uuid",
    "s08 a child below its parent",
    "s08 steps out of order",
    "s09 full values and no new versions",
    "s10 an empty channel",
    "s11 a removed channel",
    "s12 a resting channel",
    "s12 another's version",
    "s13 one version, two values",
    "s13 a number as version",
    "s14 put again",
    "s14 put again under itself",
    "s14 put again under its child",
    "s14 put again of a parent",
    "s15 what was given out is changed",
    "s16 other keys",
    "s16 an older format",
    "s17 pseudo nodes",
    "s19 a stub",
    "s20 metadata of the config",
    "s21 filter",
    "s21 filter by None",
    "s21 filter by an unknown key",
    "s23 list of all threads",
    "s23 limit",
    "s23 limit of none",
    "s24 list by id",
    "s26 an iterator is given up",
    "s27 writes before their checkpoint",
    "s27 writes after a child",
    "s27 writes of what is never put",
    "s28 a special slot",
    "s29 a taken slot",
    "s29 a special slot again",
    "s29 a special slot again after its checkpoint came",
    "s29 a mixed batch",
    "s30 one channel twice",
    "s31 a path by name",
    "s32 the null task",
    "s40 the next version",
    "s46 the async twin",
    "s47 delete",
    "s47 delete of nothing",
    "s47 begun again",
    "s50 on the running loop",
}
"""Each has to come up in every run of the fuzzer."""

SEVERAL = {"s41 a clone", "s42 another serializer"}
"""Those that come up where several savers share a log."""

HISTORY = {"d01 history", "d03 a seed", "d03 no seed", "d06 counters", "d07 a snapshot", "d10 history of nothing"}
"""Those that come up with a LangGraph that has DeltaChannel."""

DIFFERENCES = {
    "s01 numbers": "Upstream keeps thread 1 and thread '1' apart; its loop makes strings of numbers, and so do we.",
    "s04 config": "Upstream's get_tuple gives back the config that it was given; what is compared is what it names.",
    "s09 values beside new_versions": "Upstream drops values whose version is not said to be new; here they are kept.",
    "s13 two values of one version": (
        "Upstream keeps values by channel and version, so the last put changes what older checkpoints say; here each "
        "checkpoint says what was put."
    ),
    "s23 order": "Upstream lists threads and namespaces as they came, we sorted; within one the order is the same.",
    "s23 limit": "So with a limit over several, which ones come is free; how many is not.",
    "s47 late": (
        "What comes under a checkpoint that was deleted with its thread may be refused; upstream begins the thread "
        "with it."
    ),
}
"""Where our answer may be another one, and why. Nothing else passes."""

ELSEWHERE = {
    "s04 s25 d02 d04 d05": "part of every answer that is compared",
    "s18 s33 s36 s39": "about calls at the same time: those that commute are the fuzzer's other test",
    "s22 s48 s49 d08 d09": "upstream's saver in memory has no such method",
    "s34 s35 s37 s38": "about what a graph makes of its saver",
    "s43 s44 s45": "about serializers",
    "s51 s52": "about old data, and the server",
}
"""Statements that have no row above, and why not."""
