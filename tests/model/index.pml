/* Finding work without polling: who tells a worker that an account needs one.  docs/design/004, docs/flow.md step 4.

   States     ready   batches that wait in the account (submit.lua, settling.lua give_back)
              held[w] leases of worker w; a lease anywhere is what the scripts call attached (lib.lua is_attached)
              left[w] leases of a dead worker, until it is taken over
              idx     the account stands in the index {x} (keys.INDEX): a hint, never a truth
              paused  the campaign is paused: nothing may be taken, nothing is needed (pause.lua, states.lua next_need)
   News (spread_news) are not modelled: a worker that holds a lease looks again anyway, when it is hungry and after its last lease; news only
   make it sooner, and one that holds nothing drops them (worker._on_news).
   Processes  Submit    Client.submit: desk.submit, then desk._index.  Its caller may die in between and submit again.
              Verb      desk.pause, then desk.resume: the account's script, then desk._tell (inboxes, need.lua, index)
              Worker    takes.find, takes._attach, takes._take, visits (settle), takes._detach.  May die anywhere.
              Rescuer   takeover._rescue: leases back, account into the index, journal buried.  May die and begin again.
              Sweeper   takeover.sweep
   One atomic block is one script; no script touches the account's slot and the index.
   Checked    every batch is sent.  Where a hint is lost, everybody waits for ever: "invalid end state" is the counter-example, and the last
              lines of its trail say who looked too early.  Without crashes the hints alone must do (SWEEP=0).
   Switches   -D<RULE>=0 leaves a rule out.  Trails: see runs.py --trail.                                                                  */
#ifndef TAKE_OUT_FIRST   /* find.lua takes the account out of the index, then it is looked at.  0: looked at, then taken out when empty */
#define TAKE_OUT_FIRST 1
#endif
#ifndef INDEX_AFTER      /* desk: the account is written first, the index afterwards */
#define INDEX_AFTER 1
#endif
#ifndef REPEAT_INDEXES   /* desk.submit: who submitted before may have died before it told anybody */
#define REPEAT_INDEXES 1
#endif
#ifndef LAST_LOOK        /* takes._detach: only a take after the last lease was settled, that found nothing, lets go */
#define LAST_LOOK 1
#endif
#ifndef ATTACHED_IS_LEASE /* attached = a lease stands, read in the script that writes.  0: = a worker has the account in hand (a lane) */
#define ATTACHED_IS_LEASE 1
#endif
#ifndef INDEX_BEFORE_BURY /* takeover._rescue: accounts into the index before the journal goes */
#define INDEX_BEFORE_BURY 1
#endif
#ifndef SWEEP            /* needed when a worker dies between find and take */
#define SWEEP 1
#endif
#ifndef CALLER_DIES
#define CALLER_DIES 1
#endif
#ifndef WORKER_DIES
#define WORKER_DIES 0
#endif
#ifndef RESCUER_DIES
#define RESCUER_DIES 1
#endif
#ifndef VERBS
#define VERBS 1
#endif
#define W 2
#define B 2

byte ready, sent, submitted, held[W], left[W];
bit idx, lane[W], dead[W], noted[W], known[B], paused, verbs_done;
byte caller_died, worker_died, rescuer_died;

#define LEASED (held[0]+held[1]+left[0]+left[1] > 0)
#define ATTACHED (ATTACHED_IS_LEASE -> LEASED : lane[0] || lane[1])
#define DONE (submitted==B && sent==B && verbs_done)

proctype Submit(byte b) { bit again, attached, running;
redo:
  if :: !INDEX_AFTER -> idx=1 :: else fi;
  if :: again && known[b] && !REPEAT_INDEXES -> goto done :: else fi;
  atomic { if :: !known[b] -> known[b]=1; ready++ :: else fi; attached=ATTACHED; running=!paused };
  if :: caller_died<CALLER_DIES && !again -> caller_died++; again=1; goto redo :: skip fi;
  if :: !attached && running && INDEX_AFTER -> idx=1 :: else fi;
done: atomic { submitted++; again=0; attached=0; running=0 }
}
proctype Verb() { bit none;
  paused=1;                                            /* pause.lua; need.lua then says: never */
  if :: !INDEX_AFTER -> idx=1 :: else fi;
  paused=0;                                            /* resume.lua */
  atomic { none = (!ATTACHED && ready>0) };            /* need.lua */
  if :: none && INDEX_AFTER -> idx=1 :: else fi;
  verbs_done=1
}
proctype Worker(byte w) { bit got;
idle:
  atomic { if :: idx -> if :: TAKE_OUT_FIRST -> idx=0 :: else fi :: DONE -> goto stop fi; lane[w]=1 };
look:
  if :: atomic { worker_died<WORKER_DIES && !dead[w] -> worker_died++ }; goto died :: skip fi;
  atomic { got=0; if :: ready>0 && !paused && held[w]<B -> ready--; held[w]++; got=1 :: else fi };
  if :: !got && !held[w] -> goto leave :: else fi;
work:
  if :: atomic { worker_died<WORKER_DIES && !dead[w] -> worker_died++ }; goto died :: skip fi;
  if
  :: held[w]==1 -> goto look                           /* hungry (HUNGRY_AGAIN), or told */
  :: atomic { held[w] -> held[w]--; if :: paused -> ready++ :: else -> sent++ fi };
     if :: LAST_LOOK || held[w] -> goto look :: else -> goto leave fi
  fi;
leave:
  if :: !TAKE_OUT_FIRST && !got -> idx=0 :: else fi;
  atomic { lane[w]=0; got=0 };
  goto idle;
died:
  atomic { lane[w]=0; dead[w]=1; left[w]=held[w]; noted[w]=(held[w]>0); held[w]=0; got=0 };                     /* another process takes its place under another name */
  goto idle;
stop: skip
}
proctype Rescuer() { byte w;
watch:
  do
  :: atomic { dead[0] -> w=0 }; goto rescue
  :: atomic { dead[1] -> w=1 }; goto rescue
  :: DONE -> break
  od;
  goto stop;
rescue:
  atomic { ready=ready+left[w]; left[w]=0 };
  if :: !INDEX_BEFORE_BURY -> dead[w]=0 :: else fi;
  if :: rescuer_died<RESCUER_DIES -> rescuer_died++; if :: INDEX_BEFORE_BURY -> goto rescue :: else -> goto watch fi :: skip fi;
  if :: noted[w] -> idx=1 :: else fi;                  /* only accounts that its journal names */
  atomic { dead[w]=0; noted[w]=0 };
  goto watch;
stop: w=0
}
proctype Sweeper() {
  do
  :: atomic { SWEEP && ready>0 && !paused && !LEASED && !idx -> idx=1 }
  :: DONE -> break
  od
}
init {
  atomic {
    if :: VERBS -> run Verb() :: else -> verbs_done=1 fi;
    run Submit(0); run Submit(1); run Worker(0); run Worker(1); run Rescuer(); run Sweeper()
  };
  (_nr_pr==1);
  assert(sent==B && ready==0)
}
