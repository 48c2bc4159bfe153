// Who may hold a connection: how many in all and from one address, who makes way when there is no room, and a
// reserve in which probes are answered however full it is. Pure: no sockets, no clock; whoever calls it
// locks.
#pragma once

#include <cstddef>
#include <list>
#include <string>
#include <unordered_map>

namespace serval {

struct ConnectionLimits {
  int most = 4096;           // connections of full right
  int max_per_address = 0;  // of those from one address; 0: no limit
  int reserve = 16;          // more connections, on which only probes are answered
};

class ConnectionTable {
 public:
  using Id = const void*;  // whatever stands for a connection; never read

  explicit ConnectionTable(const ConnectionLimits& limits) : limits_(limits) {}

  struct Leaver {
    Id id = nullptr;       // null: nobody has to go
    bool at_once = false;  // else when it is done with what it does now
  };

  // A connection from `address` (the bytes that tell clients apart), idle at first. Returns who must be
  // closed for it: the one that has been idle longest, or, when nobody is idle, the oldest of the reserve
  // once that is full. It no longer counts, and stays known until remove().
  Leaver add(Id id, std::string address);
  // It has all rights; false: it is one of the reserve, and there is no room for more than that.
  bool claim_rights(Id id);
  // Between requests, or no longer. Allocates nothing.
  void set_idle(Id id, bool idle);
  void remove(Id id);
  // The one that has been idle longest, if any, as by add().
  Leaver take_longest_idle();

  size_t size() const { return entries_.size(); }  // including those told to leave

 private:
  enum class Place { kIdle, kBusy, kReserve, kLeaving };
  struct Entry {
    std::string address;
    Place place = Place::kIdle;
    std::list<Id>::iterator position;  // in the list of its place, in order of arrival there
  };
  using Entries = std::unordered_map<Id, Entry>;

  std::list<Id>& list_of(Place place) { return lists_[static_cast<size_t>(place)]; }
  void move(Entry& entry, Place place);
  bool has_room(const std::string& address) const;
  // The longest idle whose going makes room for `address`; null: nobody.
  Id longest_idle(const std::string& address) const;

  const ConnectionLimits limits_;
  Entries entries_;
  std::list<Id> lists_[4];
  std::unordered_map<std::string, int> per_address_;  // idle and busy ones
};

}  // namespace serval
