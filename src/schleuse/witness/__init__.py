"""What an insurer runs by itself: it cosigns the journal's checkpoints, and never two histories (journal.md § 9, § 16).

A witness remembers one checkpoint a log, about a hundred bytes, and needs no entry, no vault and no other part of
Schleuse than `journal`'s formats. Reading order:

- `decision`: what to do with a checkpoint that asks for a cosignature; pure. `store`: the memory, durable before any
  cosignature leaves, and the evidence of misbehaviour, which is kept for ever.
- `service`: the two together. `http` (push), `pull` and `paper` are three ways to it, and the same decision.
- `rules`, `monitor`, `monitor_store`: beyond cosigning, an insurer reads its whole log continuously and is told what
  does not fit. `alarm`: all that it can be told.
- `follow`: the log of the next year, taken over when the one of this year has announced its key.
- `mirror`: a checked copy of the whole log.
- `config`, `remote`: the insurer's file, and how other machines are asked.
"""
