import sys; sys.path.insert(0,'/work/wt/kl/tests')
import os
import machine_code as m
names=sys.argv[1].split(','); 
m._CASES=tuple(getattr(m,n) for n in names)
for a in (m.ARCHITECTURES if len(sys.argv)<3 else [int(x) for x in sys.argv[2].split(',')]):
    rows=m.register_report(a)
    print(a, len(rows), 'max', max(r['registers'] for r in rows))
    for r in rows:
        if r['spill_stores'] or r['spill_loads'] or r['registers']>168: print(r)
