//! Every command by name, and what is done with it over several servers. A test asks each server at hand for its own list.

use super::{Join, Keys, Rule, Why};

const fn at(place: usize) -> Rule {
    Rule::Keyed(Keys::Range {
        first: place,
        last: Some(place),
        step: 1,
    })
}

const fn two(first: usize) -> Rule {
    Rule::Keyed(Keys::Range {
        first,
        last: Some(first + 1),
        step: 1,
    })
}

const fn all_from(first: usize) -> Rule {
    Rule::Keyed(Keys::Range {
        first,
        last: None,
        step: 1,
    })
}

const fn counted(count: usize) -> Rule {
    Rule::Keyed(Keys::Counted {
        count,
        step: 1,
        into: false,
    })
}

const COUNTED_INTO: Rule = Rule::Keyed(Keys::Counted {
    count: 2,
    step: 1,
    into: true,
});

const fn refused(why: Why) -> Rule {
    Rule::Refused(why)
}

/// What is said on a channel.
pub(crate) const CHANNELS: &str = "PUBLISH SPUBLISH";

/// Names, and what holds for them; of a command with commands of its own as `NAME|OF ITS OWN`.
pub(super) const TABLE: &[(Rule, &str)] = &[
    // One key, right behind the name.
    (
        at(1),
        "APPEND BITCOUNT BITFIELD BITFIELD_RO BITPOS DECR DECRBY DELEX DELIFEQ DIGEST DUMP EXPIRE EXPIREAT EXPIRETIME \
         GEOADD GEODIST GEOHASH GEOPOS GEORADIUSBYMEMBER_RO GEORADIUS_RO GEOSEARCH GET GETBIT GETDEL GETEX GETRANGE \
         GETSET HDEL HEXISTS HEXPIRE HEXPIREAT HEXPIRETIME HGET HGETALL HGETDEL HGETEX HINCRBY HINCRBYFLOAT HKEYS HLEN \
         HMGET HMSET HPERSIST HPEXPIRE HPEXPIREAT HPEXPIRETIME HPTTL HRANDFIELD HSCAN HSET HSETEX HSETNX HSTRLEN HTTL \
         HVALS INCR INCRBY INCRBYFLOAT LINDEX LINSERT LLEN LPOP LPOS LPUSH LPUSHX LRANGE LREM LSET LTRIM MOVE PERSIST \
         PEXPIRE PEXPIREAT PEXPIRETIME PFADD PSETEX PTTL RESTORE RESTORE-ASKING RPOP RPUSH RPUSHX SADD SCARD SET SETBIT \
         SETEX SETNX SETRANGE SISMEMBER SMEMBERS SMISMEMBER SPOP SRANDMEMBER SREM SSCAN STRLEN SUBSTR TTL TYPE \
         XACK XACKDEL XADD XAUTOCLAIM XCFGSET XCLAIM XDEL XDELEX XLEN XNACK XPENDING XRANGE XREVRANGE XSETID XTRIM ZADD \
         ZCARD ZCOUNT ZINCRBY ZLEXCOUNT ZMSCORE ZPOPMAX ZPOPMIN ZRANDMEMBER ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZRANK ZREM \
         ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE ZREVRANGE ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE",
    ),
    // A channel has its node as a key has: whoever subscribes there hears of it.
    (at(1), CHANNELS),
    // Vector sets.
    (
        at(1),
        "VADD VCARD VDIM VEMB VGETATTR VINFO VISMEMBER VLINKS VRANDMEMBER VRANGE VREM VSETATTR VSIM",
    ),
    // Modules: JSON, filters and sketches, time series.
    (
        at(1),
        "JSON.ARRAPPEND JSON.ARRINDEX JSON.ARRINSERT JSON.ARRLEN JSON.ARRPOP JSON.ARRTRIM JSON.CLEAR JSON.DEL JSON.FORGET \
         JSON.GET JSON.MERGE JSON.NUMINCRBY JSON.NUMMULTBY JSON.OBJKEYS JSON.OBJLEN JSON.RESP JSON.SET JSON.STRAPPEND \
         JSON.STRLEN JSON.TOGGLE JSON.TYPE",
    ),
    (
        at(1),
        "BF.ADD BF.CARD BF.EXISTS BF.INFO BF.INSERT BF.LOADCHUNK BF.MADD BF.MEXISTS BF.RESERVE BF.SCANDUMP CF.ADD CF.ADDNX \
         CF.COUNT CF.DEL CF.EXISTS CF.INFO CF.INSERT CF.INSERTNX CF.LOADCHUNK CF.MEXISTS CF.RESERVE CF.SCANDUMP \
         CMS.INCRBY CMS.INFO CMS.INITBYDIM CMS.INITBYPROB CMS.QUERY TDIGEST.ADD TDIGEST.BYRANK TDIGEST.BYREVRANK \
         TDIGEST.CDF TDIGEST.CREATE TDIGEST.INFO TDIGEST.MAX TDIGEST.MIN TDIGEST.QUANTILE TDIGEST.RANK TDIGEST.RESET \
         TDIGEST.REVRANK TDIGEST.TRIMMED_MEAN TOPK.ADD TOPK.COUNT TOPK.INCRBY TOPK.INFO TOPK.LIST TOPK.QUERY TOPK.RESERVE",
    ),
    (
        at(1),
        "TS.ADD TS.ALTER TS.CREATE TS.DECRBY TS.DEL TS.GET TS.INCRBY TS.INFO TS.RANGE TS.REVRANGE",
    ),
    (two(1), "TS.CREATERULE TS.DELETERULE"),
    (COUNTED_INTO, "CMS.MERGE TDIGEST.MERGE"),
    (at(2), "JSON.DEBUG|MEMORY"),
    // One key, behind a name of its own.
    (
        at(2),
        "MEMORY|USAGE OBJECT|ENCODING OBJECT|FREQ OBJECT|IDLETIME OBJECT|REFCOUNT PFDEBUG XGROUP|CREATE XGROUP|CREATECONSUMER \
         XGROUP|DELCONSUMER XGROUP|DESTROY XGROUP|SETID XINFO|CONSUMERS XINFO|GROUPS XINFO|STREAM",
    ),
    // Several keys, which have to be on one node.
    (
        two(1),
        "COPY GEOSEARCHSTORE LCS LMOVE RENAME RENAMENX RPOPLPUSH SMOVE ZRANGESTORE",
    ),
    (
        all_from(1),
        "PFCOUNT PFMERGE SDIFF SDIFFSTORE SINTER SINTERSTORE SUNION SUNIONSTORE",
    ),
    (all_from(2), "BITOP"),
    (
        Rule::Keyed(Keys::Range {
            first: 1,
            last: None,
            step: 2,
        }),
        "MSETNX",
    ),
    (
        Rule::Keyed(Keys::Counted {
            count: 1,
            step: 2,
            into: false,
        }),
        "MSETEX",
    ),
    (counted(2), "EVAL EVALSHA EVALSHA_RO EVAL_RO FCALL FCALL_RO"),
    (
        counted(1),
        "LMPOP SINTERCARD ZDIFF ZINTER ZINTERCARD ZMPOP ZUNION",
    ),
    (COUNTED_INTO, "ZDIFFSTORE ZINTERSTORE ZUNIONSTORE"),
    (Rule::Keyed(Keys::Sort), "SORT SORT_RO"),
    (Rule::Keyed(Keys::Radius), "GEORADIUS GEORADIUSBYMEMBER"),
    (Rule::Keyed(Keys::Migrate), "MIGRATE"),
    (Rule::Keyed(Keys::Streams), "XREAD XREADGROUP"),
    // Any keys: a part to each node, and the answers put together.
    (Rule::Split(Join::Values, 1), "MGET"),
    (Rule::Split(Join::Done, 2), "MSET"),
    (Rule::Split(Join::Sum, 1), "DEL EXISTS TOUCH UNLINK"),
    // No key. All nodes have an answer of their own.
    (
        Rule::EachNode,
        "ACL BGREWRITEAOF BGSAVE CLIENT|GETREDIR CLIENT|HELP CLIENT|ID CLIENT|INFO CLIENT|KILL CLIENT|LIST CLIENT|TRACKINGINFO \
         CLIENT|GETNAME CLIENT|UNBLOCK CLIENT|UNPAUSE COMMAND COMMANDLOG CONFIG DBSIZE ECHO FUNCTION INFO KEYS LASTSAVE \
         LATENCY LOLWUT MEMORY|DOCTOR MEMORY|HELP MEMORY|MALLOC-STATS MEMORY|PURGE MEMORY|STATS MODULE|HELP MODULE|LIST \
         OBJECT|HELP PING PUBSUB RANDOMKEY ROLE SAVE SCRIPT|EXISTS SCRIPT|FLUSH SCRIPT|HELP SCRIPT|KILL SCRIPT|SHOW \
         SLOWLOG TIME XGROUP|HELP XINFO|HELP HOTKEYS",
    ),
    (Rule::ScriptLoad, "SCRIPT|LOAD"),
    (Rule::Flush, "FLUSHDB"),
    // One server's own affairs.
    (
        refused(Why::OneServer),
        "DEBUG FAILOVER LATENCY|GRAPH MODULE|LOAD MODULE|LOADEX MODULE|UNLOAD PFSELFTEST REPLICAOF SCAN SHUTDOWN \
         SLAVEOF",
    ),
    // Of a connection that is nobody else's.
    (
        refused(Why::OwnConnection),
        "AUTH CLIENT|CACHING CLIENT|CAPA CLIENT|IMPORT-SOURCE CLIENT|NO-EVICT CLIENT|NO-TOUCH CLIENT|REPLY CLIENT|SETINFO \
         CLIENT|SETNAME CLIENT|TRACKING DISCARD EXEC HELLO MONITOR MULTI PSUBSCRIBE PSYNC PUNSUBSCRIBE QUIT REPLCONF RESET \
         SCRIPT|DEBUG SELECT SSUBSCRIBE SUBSCRIBE SUNSUBSCRIBE SYNC UNSUBSCRIBE UNWATCH WATCH",
    ),
    (
        refused(Why::Blocks),
        "BLMOVE BLMPOP BLPOP BRPOP BRPOPLPUSH BZMPOP BZPOPMAX BZPOPMIN CLIENT|PAUSE WAIT WAITAOF",
    ),
    (
        refused(Why::Cluster),
        "ASKING CLUSTER CLUSTERSCAN READONLY READWRITE",
    ),
    (refused(Why::Unseen), "SWAPDB"),
    (refused(Why::OtherDatabases), "FLUSHALL"),
    // Modules that keep indexes over many keys, which are on as many nodes.
    (
        refused(Why::ManyNodes),
        "FT.AGGREGATE FT.ALIASADD FT.ALIASDEL FT.ALIASUPDATE FT.ALTER FT.CONFIG FT.CREATE FT.CURSOR FT.DICTADD FT.DICTDEL \
         FT.DICTDUMP FT.DROPINDEX FT.EXPLAIN FT.EXPLAINCLI FT.HYBRID FT.INFO FT.PROFILE FT.SEARCH FT.SPELLCHECK FT.SYNDUMP \
         FT.SYNUPDATE FT.TAGVALS FT._LIST JSON.MGET JSON.MSET TS.MADD TS.MGET TS.MRANGE TS.MREVRANGE TS.QUERYINDEX",
    ),
];
