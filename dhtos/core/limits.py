"""Every maximum in one place: a node obeys strangers, so nothing may grow without a bound.

Sizes are bytes, durations are seconds. A constant is named after the thing it bounds; the
comment says why that figure.
"""

# --- datagrams and values -----------------------------------------------------------------------
DATAGRAM_BYTES_MAX = 65507  # what UDP over IPv4 can carry
REQUEST_PAYLOAD_BYTES_MAX = 8192  # rpcudp refuses a larger request payload
VALUE_BYTES_MAX = 8000  # the largest value a stock `store` request carries, with its overhead
VALUE_SIGNED_BYTES_MAX = 7000  # in a cluster: beside its proof
REPLY_BYTES_MAX = 1200  # one datagram of a hub reply: below every common path MTU
NESTING_MAX = 8  # arrays inside arrays in a message
TRAILER_BYTES_MAX = 255  # its length is one byte on the wire
NAME_BYTES_MAX = 32  # an RPC name

# --- calls --------------------------------------------------------------------------------------
CALLS_OUTSTANDING_MAX = 8192  # a node that waits for more has lost its network
RTO_FLOOR_S = 0.05  # below it a busy event loop looks like a dead peer
RTO_SLACK_S = 0.02  # a steady path may still be this much slower once (G of RFC 6298)
RTO_CEILING_S = 2.0
RTO_UNKNOWN_S = 0.25  # first guess for a peer that never answered
RTO_SAMPLES_MIN = 16  # measured peers that make a better guess: a far place of some size shows
RTO_SAMPLES_MAX = 256  # and this many are looked at, the latest met
CALL_DEADLINE_S = 2.0  # hard end of one call
OPERATION_DEADLINE_S = 10.0  # hard end of one operation, whatever its peers do
PEERS_MAX = 4096  # endpoints with remembered round-trip times

# --- base overlay -------------------------------------------------------------------------------
K = 20  # bucket size and replication of the base overlay, as stock
ALPHA = 3  # lookup parallelism, as stock
BUCKET_REPLACEMENTS_MAX = 10  # a third of a bucket may die at once; more only cost memory
CONTACT_FAILURES_MAX = 2  # failed calls in a row, each with a retransmit, before it is forgotten
CONTACTS_PER_SUBNET_BUCKET_MAX = 2  # places of one bucket a /24 (or /56) keeps if others want them
CONTACTS_PER_SUBNET_MAX = 10  # and places of one table; private ranges are exempt
LOOKUP_PEERS_MAX = 256  # contacts one lookup may ever queue
CONTACTS_PER_REPLY_MAX = 64  # the largest k an engine may have
VALUE_PATIENCE_S = 0.005  # least wait for a newer value once one was found
VALUES_MAX = 65536  # values stored for others
VALUES_BYTES_MAX = 64 * 2**20
VALUES_PER_SOURCE_MAX = 4096  # of one subnet; in a cluster of one owner, whoever brought them
VALUES_BYTES_PER_OWNER_MAX = 4 * 2**20
PATHS_MAX = 8  # disjoint paths of one lookup
TOLD_AT_ONCE_MAX = 2  # unproven contacts of one answer that a lookup in a cluster asks at once
TOLD_DOUBTS_MAX = 3  # of them that are silent or false, before the others are left
VALUE_TTL_S = 604800.0  # as stock: a week
REPUBLISH_INTERVAL_S = 3600.0
REFRESH_INTERVAL_S = 3600.0
EMPTY_RANGE_RETRY_S = 2.0  # a range of ids where nobody is known; doubles up to the refresh
HANDOFF_PER_S_MAX = 50  # stores a node sends to newcomers each second
HANDOFF_QUEUE_MAX = 256  # newcomers that wait for their hand-off
HANDOFF_SCAN_PER_S_MAX = 2000  # keys compared with newcomers each second
GREETINGS_PER_S_MAX = 100  # unknown requesters a node pings each second
GREETING_INTERVAL_S = 10.0  # one requester is pinged once in this time
GREETINGS_MAX = 4096  # requesters remembered for that
CONTACT_FRESH_S = 900.0  # heard within this time: not pinged when its place is wanted
SEEDS_MAX = 64  # addresses one join may ping
SEED_ROUNDS = 3  # times they are pinged where none answers, each for a second
UPKEEP_INTERVAL_S = 60.0  # how often a node looks for what is due for refresh or republication

# --- hub ----------------------------------------------------------------------------------------
GROUP_SIZE = 256  # default G
GROUP_SIZE_MIN = 8
GROUP_SIZE_MAX = 1024
HUB_BUCKET_CONTACTS_MAX = 8  # K of a hub bucket: enough for 30 % of sudden deaths
RECORD_BYTES_MAX = 1000  # a whole record fits in one datagram with its frame
ATTRIBUTES_MAX = 64
KEYED_ATTRIBUTES_MAX = 16
LABELS_MAX = 32
LABEL_BYTES_MAX = 64
TEXT_BYTES_MAX = 128  # one text value of a record
POOL_VALUES_MAX = 16384  # values that records have in common; all are forgotten beyond
RECORD_TTL_S = 180.0  # 3 T: contacts nobody hears of, records nobody renews
HEARTBEAT_S = 60.0  # T: how often a gateway renews the record of a machine without a node
NODE_HEARTBEAT_S = 300.0  # a node's own: changes are told as they come, and probes prove life
NODE_TTL_S = 900.0  # three of those
VOUCHED_S = 15.0  # a member that is not in doubt lived so long ago: a probe would have shown
GOSSIP_TICK_S = 1.0
RUMOURS_PER_MESSAGE_MAX = 12
RUMOURS_QUEUED_MAX = 2048
SEQ_LEAD_MAX = 2**40  # versions that a rumour may be ahead: clocks in seconds are below 2**32
RUMOUR_HOPS_MAX = 6
CONFLICTS_MAX = 16  # peers of another schema under our version number that are remembered
SUSPICION_S = 4.0
INDIRECT_PROBES = 3
SUMMARY_INTERVAL_S = 30.0
GROUP_SERVING_MIN = 8  # nodes that each half keeps when records of gateways crowd a group
FOREIGN_PER_GROUP_MAX = 4096  # records of machines without a node that one group holds
FOREIGN_PER_GATEWAY_MAX = 2048  # and those of one gateway among them
FOREIGN_COPIES = 3  # members a gateway puts each record to
ROW_BYTES_MAX = 64  # a gateway's name for one of its machines
GATEWAY_ROWS_MAX = 10_000  # machines one gateway advertises
GATEWAY_SEATS_MAX = 32  # places one gateway takes where too few nodes are
GATEWAY_PUTS_MAX = 32  # datagrams of a gateway that wait for their answer
GATEWAY_PLACES_MAX = 4096  # groups whose members a gateway remembers
PUT_RUMOURS_MAX = 64  # records in one `dh_put`

# --- coordinates --------------------------------------------------------------------------------
RTT_S_MAX = 10.0  # a longer sample is a stalled process, not a path (Serf refuses it too)
COORDINATE_S_MAX = 10.0  # no component or height beyond the longest path
COORDINATE_HEIGHT_S_MIN = 1e-5  # as Serf: a host's access link is never free
COORDINATE_ERROR_MAX = 1.5  # as Serf, and the error of who knows nothing
COORDINATE_ERROR_MIN = 0.01  # a remote that claims to be surer than this is not believed
COORDINATE_STEP_S_MAX = 0.25  # one sample moves a newcomer at most this far, others a fifth
COORDINATE_FIT_STEP_S_MAX = 0.05  # and one step of a fit, whatever its peers say
COORDINATE_NEWS_S = 0.01  # a published coordinate follows moves of more than this
COORDINATE_TELL_S = 60.0  # and no record changes more often only to tell a better place
MEMORY_PEERS_MAX = 96  # measured peers a place is fitted to; 64 leave the far ones too few
MEMORY_NEAR = 16  # the nearest of them are never displaced by others
MEMORY_SAMPLES_MAX = 5  # of which the median counts
NEAR_PROBES = 8  # hits of a question about the own distance that are pinged
MEMORY_S = 1800.0  # a peer that nobody measured for so long is forgotten

# --- queries ------------------------------------------------------------------------------------
PREDICATE_BOXES_MAX = 256
PREDICATE_TERMS_MAX = 32
PREDICATE_DEPTH_MAX = 8
PREDICATE_TEXT_MAX = 4096
PREDICATE_SET_MAX = 64  # values in one `in (...)`
PREDICATE_WIRE_BYTES_MAX = 6000  # leaves room in a request of 8192 for the rest of a question
ANSWER_PARTS_MAX = 64  # datagrams of one answer: room for the longest list of subtrees
HIT_PARTS_MAX = 16  # datagrams up to which hits are added to an answer
ANSWER_BYTES_MAX = 128 * 1024  # of one answer, inflated
AMPLIFICATION_MAX = 3  # bytes sent to an unproven address for each it sent (RFC 9000, 8.1)
ITEM_CONTACTS = 4  # contacts told for a subtree: the asker has detours when all are dead
WALK_ALPHA = 4  # subtrees asked about at once
WALK_ALPHA_MAX = 16  # and where the frontier is long: their answers meet in one link
ITEM_CALLS_MAX = 6  # contacts of one subtree asked at once, each of them late but the last
VERIFY_MAX = 4  # members asked about one subtree; each costs all its calls again
WALK_FRONTIER_MAX = 4096
WALK_HITS_MAX = 200_000
CURSOR_BYTES_MAX = 65536
HISTOGRAM_EDGES_MAX = 64  # between its counts: more than a screen shows
SELECT_WIRE_BYTES_MAX = 1024  # of what is wanted of the matches: room for all edges
CENTRAL_OTHERS_MAX = 64  # machines that a central one is to be near to
DRAWS_MAX = 64  # needs whose last sample is kept
SAMPLE_MAX = 256  # machines drawn at a time: any of them may lie in one group

# --- placement ----------------------------------------------------------------------------------
DEMAND_NEEDS = 1000  # needs after which one seen now counts e times less
DEMAND_TYPES_MAX = 256  # different needs among them; the rarest are forgotten first
FRAGMENT_STATES_MAX = 16384  # states of machines whose fragmentation is remembered
GRANTS_MAX = 4096  # promises of one node at a time
TOKENS_GONE_MAX = 16384  # ended grants whose token is remembered
AWAIT_S = 0.25  # a claim that waits for what others give back is sent again after so long
PREEMPT_GRACE_S = 10.0  # so long may they take; their term may be over sooner
HOLD_S = 10.0  # a hold that is not confirmed; 10 to 60 s made no difference where schedulers crash
LEASE_S = 30.0  # default term of a lease, renewed at a third of it
LEASE_MARGIN = 0.01  # of a term: its owner stops so much earlier; clocks differ by up to 0.1 %
LEASE_S_MIN = 1.0
LEASE_S_MAX = 3600.0
PRIORITY_MAX = 2**31 - 1
CLAIM_RESOURCES_MAX = 16  # of one claim
TAKEN_DELAY_S = 0.02  # after a claim the record says what is left: others are about to claim it
OFFER_DELAY_S = 0.5  # and after a release; no record says so more often

# --- bandwidth ----------------------------------------------------------------------------------
TRAIN_DATAGRAM_BYTES = 1200  # as REPLY_BYTES_MAX: below every common path MTU
TRAIN_DATAGRAMS_MIN = 32
TRAIN_DATAGRAMS_MAX = 512  # 0.6 MB: a burst of 0.3 MB, or 20 ms of 120 Mbit/s, in its first half
TRAINS = 5  # of which the median counts
TRAIN_BYTES_PER_HOUR = 32 * 2**20  # seven of the longest measurements, or sixty of short ones
TRAIN_WAITING_MAX = 64  # measurements that wait for their turn
TRAIN_PATHS_MAX = 256  # estimates remembered
TRAIN_ANSWERS_MAX = 32768  # datagrams of one host answered in an hour: that budget
TRAIN_SOURCES_MAX = 256  # hosts counted for that

# --- transport ----------------------------------------------------------------------------------
DRAIN_DATAGRAMS_MAX = 64  # datagrams read in one wake-up of the loop
DRAINS_BEFORE_TICK_MAX = 16  # batches read before a due tick: a flood may not put it off
SEND_QUEUE_DATAGRAMS_MAX = 4096  # waiting for the kernel to take more
SEND_ADDRESSES_MAX = 16384  # destinations whose parsed form is remembered
RECEIVE_BUFFER_BYTES = 4 * 2**20  # asked of the kernel, which grants what it likes
TIMER_GRANULARITY_S = 0.001  # nothing in the engine is due with more precision

# --- node ---------------------------------------------------------------------------------------
STORED_CONTACTS_MAX = 256  # contacts remembered between two runs
KEPT_MAX = 4096  # values that a node keeps alive: users it admitted, secrets it was given
KEPT_BYTES_MAX = 4 * 2**20
CONTROL_LINE_BYTES_MAX = 2**20  # one line of the control socket
CONTROL_CLIENTS_MAX = 64  # connections to the control socket at a time
CONTROL_GUESTS_MAX = 48  # of them of others than its owner
CONTROL_PER_USER_MAX = 8  # and of one of those

# --- http ---------------------------------------------------------------------------------------
HTTP_CONNECTIONS_MAX = 256  # at a time; one more is told to come again
HTTP_HEAD_S = 10.0  # until a request line and its headers have come
HTTP_BODY_S = 30.0  # until all of a body has come
HTTP_BODY_BYTES_MAX = 2**20
HTTP_ANSWER_S = 60.0  # of one answer, but for a stream that is read
HTTP_STALL_S = 30.0  # a client that does not read for so long is cut off
HTTP_LEASES_MAX = 1024  # leases held for clients at a time
HTTP_LEASES_GONE_MAX = 1024  # lost ones of which the reason is remembered

# --- kubernetes ---------------------------------------------------------------------------------
EXTENDER_BODY_BYTES_MAX = 32 * 2**20  # 1000 whole nodes are 0.75 MB
EXTENDER_PODS_MAX = 4096  # pods between filter and bind that are remembered
EXTENDER_BINDINGS_MAX = 4096  # pods whose lease is held
EXTENDER_MACHINES_MAX = 100_000  # of one view
QUANTITY_BYTES_MAX = 64  # of one amount, as 100m

# --- commands -----------------------------------------------------------------------------------
COMMAND_BYTES_MAX = 2**18  # arguments and environment of one: Linux takes 128 KiB in one of them
COMMAND_ARGUMENTS_MAX = 4096
COMMAND_VARIABLES_MAX = 1024
COMMAND_CHUNK_BYTES = 2**16  # of a stream in one frame: what a pipe holds
COMMAND_WINDOW_BYTES = 2**19  # of a stream under way and not yet taken: 5 MB/s over 100 ms
COMMAND_HELLO_S = 5.0  # a connection that has not said what it wants is closed
COMMAND_START_S = 30.0  # until a node has started one: what it ends for it has its grace
COMMAND_LEAVING_S = 0.5  # for the end of a connection to be heard after the next one has come
COMMAND_STRANGERS_MAX = 64  # of those at a time; the oldest gives way
COMMANDS_MAX = 128  # of one node at a time: eight file descriptors each
COMMAND_GRACE_S = 5.0  # from SIGTERM to SIGKILL when a lease has ended
COMMAND_ORPHAN_GRACE_S = 1.0  # and when the daemon has died: its next start may grant again
COMMAND_OUTPUT_BYTES_MAX = 2**26  # what `run` collects for a caller
USAGE_ROWS_MAX = 1024  # ended commands a node remembers

# --- sessions -----------------------------------------------------------------------------------
SESSIONS_MAX = 10_000  # peers we have keys with at a time
SESSION_IDLE_S = 600.0  # after which the keys are forgotten
SESSION_REKEY_S = 7200.0  # after which new keys are made
SESSION_GUESTS_MAX = 256  # of those who have not been admitted yet
OPENINGS_MAX = 1024  # handshakes of ours under way
OPENING_QUEUE_MAX = 64  # datagrams that wait for one of them
OPENING_RETRY_S = (0.25, 0.5, 1.0, 1.5)  # pauses after which a step is sent again
COOKIE_S = 120.0  # a cookie is good for one to two of these
HANDSHAKES_PER_S = 100.0  # that one address may have us work on
HANDSHAKES_BURST = 400
HANDSHAKE_SOURCES_MAX = 4096  # addresses whose rate is remembered
REASON_BYTES_MAX = 120  # why a handshake is refused
WELCOMES_MAX = 64  # other clusters that are welcome, or were lately
WELCOME_S_MAX = 90 * 86_400  # for which one may be, and is remembered
TOKEN_SEEDS_MAX = 8  # addresses in a join token: one line still
ENROL_REASON_BYTES_MAX = 200  # why somebody is not admitted
INVITES_MAX = 256  # of one issuer at a time
INVITE_USES_MAX = 1000  # machines that one token admits
INVITE_S_MAX = 30 * 86_400.0  # for which a token may be good

# --- shares -------------------------------------------------------------------------------------
SHARE_CAPACITY = 0.5  # of a core: what a node of a cluster does for others
SHARE_BURST_S = 0.25  # of its share or capacity that who has asked for little may have at once
SHARE_ACTIVE_S = 10.0  # who has not asked for one to two of these has no share
SHARE_LOAD_MAX = 16.0  # times as much costs what is beyond a share, where the node is short
SHARE_PRINCIPALS_MAX = 10_000  # as SESSIONS_MAX: in whose name they ask

# --- receipts -----------------------------------------------------------------------------------
RECEIPT_BYTES_MAX = 1000
RECEIPT_SLACK_S = 5.0  # by which a machine may see a lease end later than its owner has given it up
RECEIPTS_OWED_MAX = 4096  # leases of ours whose receipt may come, and those signed of late
RECEIPT_WAIT_S = 0.5  # whoever closes waits so long for the receipts of what it has just given up
RECEIPTS_BYTES_MAX = 16 * 2**20  # of a file; the one before it is kept
